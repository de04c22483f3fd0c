"""What measures are called in reports."""

LABELS = {
    "gold/harmful_compliance": "compliance with harmful requests",
    "gold/over_refusal": "refusal of innocent requests",
    "gold/helpful": "helpful completions",
    "gold/honest": "honest completions",
    "gold/toxic": "toxic completions",
    "toxicity/rate": "toxic completions",
    "toxicity/score": "toxicity of completions",
    "realtoxicityprompts/expected_maximum": "RealToxicityPrompts: expected maximum toxicity",
    "realtoxicityprompts/any": "RealToxicityPrompts: prompts with a toxic continuation",
    "realtoxicityprompts/score": "RealToxicityPrompts: toxicity of continuations",
    "rouge/l": "ROUGE-L against the reference",
    "gold/score": "gold score",
    "reward/mean": "reward",
    "reward/held_out": "reward by the held-out reward model",
    "reward/accuracy": "accuracy of the reward model",
    "reward/over_bag_of_words": "accuracy of the reward model over that of a bag of words",
    "reward/brier": "Brier score of the reward model",
    "reward/calibration_error": "calibration error of the reward model",
    "reward/length_pearson": "correlation of reward and length (Pearson)",
    "reward/length_spearman": "correlation of reward and length (Spearman)",
    "reward/prefers_longer": "pairs whose longer completion gets the higher reward",
    "baseline/bag_of_words": "accuracy of a bag of words",
    "baseline/length": "accuracy of the length of completions",
    "cost/brier": "Brier score of the cost model",
    "cost/calibration_error": "calibration error of the cost model",
    "cost/cost": "mean cost of held-out completions",
    "cost/harmful": "held-out completions labelled harmful",
    "cost/of_harmless": "cost of harmless completions",
    "cost/of_harmful": "cost of harmful completions",
    "pairs/longer_chosen": "pairs whose longer completion is chosen",
    "pairs/accuracy": "held-out pairs whose chosen completion has the larger implicit reward",
    "pairs/margin": "margin of the implicit reward on held-out pairs",
    "eval/perplexity": "perplexity of held-out demonstrations",
    "eval/kl": "KL to the previous model, nats per completion",
    "length/mean": "tokens per completion",
    "length/finished": "completions with an end-of-turn token",
    "data/harmful/kept": "harmful completions in the training data",
    "data/accepted": "accepted revisions",
    "data/dropped": "revised completions that a filter dropped",
    "data/critic_praises_harm": "critiques of harmful completions that find nothing wrong",
    "data/critic_faults_right": "critiques of right completions that find fault",
    "data/right_lost": "right completions that a round makes wrong",
    "refusal/harmful_answered": "harmful prompts that get an answer",
    "refusal/safe_answered": "harmless prompts that get an answer",
    "refusal/harmful_partial": "harmful prompts that get a partial refusal",
    "refusal/safe_partial": "harmless prompts that get a partial refusal",
    "refusal/harmful_empty": "harmful prompts that get an empty completion",
    "refusal/safe_empty": "harmless prompts that get an empty completion",
    "refusal/harmful_answered_corrected": "harmful prompts that get an answer, corrected for the scorer's errors",
    "refusal/safe_answered_corrected": "harmless prompts that get an answer, corrected for the scorer's errors",
    "jailbreaks/any": "harmful prompts that get an answer under at least one attack",
    "moderation/flagged": "completions to harmful prompts that the moderation server flags",
    "win_rate/wins": "win rate against the baseline",
    "win_rate/length_controlled": "win rate against the baseline at equal length",
    "win_rate/ties": "prompts on which the judge prefers neither answer",
    "win_rate/order_decides": "verdicts that change with the order of the answers",
    "reward_bench/accuracy": "RewardBench: right completion has the highest reward",
    "reward_bench/ties_accuracy": "RewardBench: all right completions above all wrong ones",
    "reward_bench/ties_margin": "RewardBench: right ones closer to each other than to wrong ones",
    "bbq/ambiguous_accuracy": "BBQ: right where the context does not tell",
    "bbq/disambiguated_accuracy": "BBQ: right where the context tells",
    "bbq/ambiguous_bias": "BBQ: bias where the context does not tell",
    "bbq/disambiguated_bias": "BBQ: bias where the context tells",
    "crows_pairs/stereotyping": "CrowS-Pairs: more stereotyping sentence likelier",
    "crows_pairs/stereo": "CrowS-Pairs: the same, stereotypes",
    "crows_pairs/antistereo": "CrowS-Pairs: the same, violated stereotypes",
    "bold/male": "BOLD: continuations with more male words",
    "bold/female": "BOLD: continuations with more female words",
    "bold/toxic": "BOLD: toxic continuations",
    "bold/toxicity": "BOLD: toxicity of continuations",
    "stereoset/lms": "StereoSet: language modeling",
    "stereoset/ss": "StereoSet: stereotypes preferred",
    "stereoset/icat": "StereoSet: icat",
    "winobias/pro_accuracy": "WinoBias: stereotyped pronouns understood",
    "winobias/anti_accuracy": "WinoBias: other pronouns understood",
    "winobias/gap": "WinoBias: gap of both",
    "swaps/refusal_changed": "prompts whose refusal depends on the group of people",
    "swaps/refused": "prompts that name a group and are refused",
    "swaps/swapped_refused": "the same prompts with their groups exchanged",
    "swaps/length_ratio": "tokens after the exchange over those before",
    "truthfulqa/mc1": "TruthfulQA MC1",
    "truthfulqa/mc2": "TruthfulQA MC2",
    "truthfulqa/brier": "TruthfulQA: Brier score",
    "truthfulqa/calibration_error": "TruthfulQA: calibration error",
    "hhh/accuracy": "HHH: better answer likelier",
    "hhh/accuracy_per_token": "HHH: better answer likelier per token",
    "hhh/probability": "HHH: probability of the better answer",
    "behaviors/first": "behaviors: first answer likelier",
    "capabilities/accuracy": "small exact tasks solved",
    "labels/agreement": "AI labels that agree with the truth",
    "labels/agreement_of_kept": "AI labels that agree, of those used for training",
    "labels/agreement_of_surest_half": "AI labels that agree, of the more confident half",
    "labels/agreement_where_model_errs": "AI labels that agree, where the judge's model prefers the worse completion",
    "labels/agreement_where_model_is_right": "AI labels that agree, where it prefers the better completion",
    "labels/kept": "AI labels used for training",
    "labels/position_bias": "position bias towards the first completion",
    "labels/order_decides": "verdicts that change with the order",
    "labels/ties": "AI labels that are ties or close to one",
}
SHORT = {  # beside one completion
    "gold/harmful_compliance": "complies with harm",
    "gold/over_refusal": "refuses the innocent",
    "gold/score": "gold score",
    "reward/mean": "reward",
    "reward/held_out": "held-out reward",
    "refusal/harmful_answered": "answers harm",
    "refusal/safe_answered": "answers the harmless",
    "toxicity/rate": "toxic",
    "rouge/l": "ROUGE-L",
    "eval/kl": "KL",
    "pairs/accuracy": "ranks its pair right",
    "pairs/margin": "margin of its pair",
    "length/mean": "tokens",
    "length/finished": "finished",
}
BY_KIND = {
    "realtoxicityprompts/expected_maximum/": "RealToxicityPrompts: expected maximum toxicity,",
    "realtoxicityprompts/any/": "RealToxicityPrompts: prompts with a toxic continuation,",
    "reward_bench/accuracy/": "RewardBench: right completion has the highest reward,",
    "bold/male/": "BOLD: continuations with more male words,",
    "bold/female/": "BOLD: continuations with more female words,",
    "bold/toxicity/": "BOLD: toxicity of continuations,",
    "harmbench/answered/": "HarmBench: answers to",
    "harmbench/partial/": "HarmBench: partial refusals of",
    "jailbreaks/answered/": "harmful prompts that get an answer under",
    "reward/accuracy/": "accuracy of the reward model on",
    "gold/score/": "gold score on",
    "gold/helpful/": "helpful completions of",
    "gold/honest/": "honest completions of",
    "bbq/ambiguous_bias/": "BBQ: bias where the context does not tell,",
    "bbq/disambiguated_bias/": "BBQ: bias where the context tells,",
    "crows_pairs/stereotyping/": "CrowS-Pairs: more stereotyping sentence likelier,",
    "winobias/pro_accuracy/": "WinoBias: stereotyped pronouns understood,",
    "winobias/anti_accuracy/": "WinoBias: other pronouns understood,",
    "winobias/gap/": "WinoBias: gap of both,",
    "hhh/accuracy/": "HHH: better answer likelier,",
    "behaviors/matching/": "answers that show the behavior,",
    "behaviors/probability/": "probability of answers that show the behavior,",
    "capabilities/accuracy/": "small exact tasks solved,",
}
CLEAN = "/uncontaminated"
BY_ROUND = {
    "durability/": "harmful prompts,",
    "data/harmful/": "harmful completions in the data after",
    "data/right/": "right completions in the data after",
    "data/harm_removed/": "harmful completions made harmless under the principle",
}


def label(name: str) -> str:
    """Return what a measure is called in a table."""
    if name.endswith(CLEAN):
        return f"{label(name.removesuffix(CLEAN))}, items that are not near training rows"
    if words := label_by_kind(name):
        return words
    start, slash, last = name.rpartition("/")
    words = f"{BY_ROUND.get(start + slash, '')} {last.replace('_', ' ')}".strip()
    return LABELS.get(name, words)


def short_label(name: str) -> str:
    """Return what a measure is called beside one completion."""
    group, _, last = name.partition("/")
    return SHORT.get(name, (last if group == "gold" else f"{group} {last}").replace("_", " "))


def label_by_kind(name: str) -> str:
    """Return what a measure over one kind of prompt is called; nothing for other measures."""
    start, slash, kind = name.rpartition("/")
    words = BY_KIND.get(start + slash)
    return f"{words} {kind.replace('_', ' ')} prompts" if words else ""
