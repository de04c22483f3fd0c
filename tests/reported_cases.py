"""Run the tests of the inputs that were once misread, and print one line for each.

    cd tests && python reported_cases.py    # four minutes

The numbers are those of the list of reported inputs. An input that several tests cover passes if all of them pass.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

READ = "test_cases.py::test_a_row_is_read_for_what_it_means[{}]"
REFUSED = "test_cases.py::test_a_row_that_would_lose_its_meaning_is_refused_in_one_sentence[{}]"
STYLE = "test_template_laws.py::test_the_laws_hold_for_a_style[{}]"
LAWS = "test_template_laws.py::test_"
PACKING = "test_architectures.py::test_packing_is_allowed_where_documents_stay_apart"
CASES = {
    1: ("turns with the keys input and output", READ.format("xtuner")),
    11: ("trees of messages", READ.format("tree"), "test_cases.py::test_flat_messages_of_a_tree_become_conversations"),
    23: ("answers before and after tuning", REFUSED.format("before-after")),
    31: ("positive and negative options", READ.format("option")),
    46: ("a Git LFS pointer of preferences", "test_data_file.py::test_an_unreadable_file_raises_a_failure_of_one_line"),
    49: ("a Git LFS pointer of answers", "test_data_file.py::test_an_unreadable_file_raises_a_failure_of_one_line"),
    51: ("answers to annotate beside a text", REFUSED.format("completions")),
    57: ("one object over many lines",
         "test_data_file.py::test_objects_over_many_lines_rows_inside_an_object_and_lists_of_turns_are_read"),
    71: ("label false beside messages", READ.format("kto-false")),
    72: ("audio", REFUSED.format("audio")),
    74: ("video and audio", REFUSED.format("audio")),
    81: ("pairs with their context", READ.format("colossal")),
    93: ("unpaired conversations", READ.format("kto-trl")),
    94: ("pairs without a prompt", REFUSED.format("implicit")),
    100: ("unpaired texts", READ.format("kto-number")),
    110: ("images", REFUSED.format("images"), REFUSED.format("placeholder")),
    112: ("images as parts", REFUSED.format("parts")),
    139: ("messages with label false", READ.format("kto-false")),
    141: ("weight 0 of the last turn", READ.format("weight-0-first")),
    143: ("answers with scores", READ.format("scores"), READ.format("scores-text")),
    145: ("labels and weights of a table",
          "test_cases.py::test_labels_weights_and_turns_are_read_from_the_text_of_a_table"),
    147: ("label 1.7", REFUSED.format("label-1.7")),
    149: ("strength of a preference", READ.format("helpsteer"), READ.format("helpsteer-tie")),
    151: ("winner", READ.format("arena-a"), READ.format("arena-b"), READ.format("arena-tie")),
    153: ("correct and incorrect", READ.format("correct")),
    155: ("reasoning_content", READ.format("reasoning-content")),
    157: ("question, reasoning, answer", READ.format("reasoning")),
    159: ("flat messages of trees", "test_cases.py::test_flat_messages_of_a_tree_become_conversations"),
    160: ("all answers of a conversation",
          "test_truncation.py::test_every_answer_of_a_conversation_is_learned_with_its_end",
          "test_finished.py::test_sft_learns_every_answer_or_the_last"),
    162: ("two turns of the user", "test_cases.py::test_what_conversations_lack_is_counted"),
    163: ("null columns", READ.format("null-columns"), READ.format("null-structs")),
    174: ("a reward model with another pad token",
          "test_rewards.py::test_a_published_model_that_pads_with_another_token_scores_alone_as_in_a_batch"),
    176: ("packed rows under eager attention",
          "test_architectures.py::test_common_models_read_packed_rows_with_every_attention"),
    178: ("Falcon's second completion", "test_architectures.py::test_a_completions_score_does_not_depend_on_the_other"),
    180: ("packed documents of OPT, Falcon, Bloom, MPT, Mamba", PACKING),
    182: ("pairs that differ behind max_length", "test_data_fit.py::test_what_truncation_takes_is_counted"),
    184: ("a prompt's share", "test_truncation.py::test_a_long_answer_leaves_its_prompt_its_share"),
    186: ("new tokens under LoRA", "test_new_tokens.py::test_new_rows_move_and_the_merged_model_is_the_adapters"),
    189: ("weights that are a Git LFS pointer", "test_broken_weights.py::test_broken_weights_are_one_sentence"),
    191: ("a missing layer", "test_broken_weights.py::test_broken_weights_are_one_sentence"),
    193: ("an adapter beside a config", "test_broken_weights.py::test_an_adapter_beside_a_config_is_named"),
    197: ("files of 2 to 8 rows", "test_held_out.py"),
    199: ("one opening for all rows", "test_data_file.py::test_an_opening_that_all_rows_share_does_not_split_them"),
    201: ("prompts alone", "test_held_out.py::test_the_plan_says_what_cannot_be_measured"),
    203: ("a system turn under Gemma", STYLE.format("gemma 2"), LAWS + "a_system_turn_begins_the_first_user_turn"),
    206: ("named templates without a default", LAWS + "what_cannot_be_repaired_is_one_sentence",
          LAWS + "a_folder_to_start_from_is_made_ready_unless_it_is"),
    208: ("templates that want parts", STYLE.format("parts")),
    210: ("templates that drop the reasoning", LAWS + "the_reasoning_of_an_answer_is_learned_once"),
    212: ("a generation prompt that opens the reasoning",
          LAWS + "an_answer_without_reasoning_closes_what_the_prompt_opens", LAWS + "a_template_from_a_file"),
    216: ("Phi-3's second end", STYLE.format("phi 3")),
    218: ("BOS under chatml, zephyr and text", LAWS + "the_laws_hold_for_a_style"),
    221: ("typed control tokens under SentencePiece", LAWS + "the_laws_hold_for_a_style",
          "test_templates.py::test_only_the_template_writes_special_tokens"),
    223: ("dates", LAWS + "a_date_is_the_same_every_day", LAWS + "a_date_is_pinned_once"),
    229: ("commas without -m", "test_command_line.py::test_a_forgotten_m_is_one_sentence"),
    231: ("--method=sft", "test_command_line.py::test_what_begins_with_a_dash_is_a_flag_or_refused"),
    233: ("odd letters in paths", "test_command_line.py::test_an_existing_path_is_read_as_it_is_typed",
          "test_command_line.py::test_an_odd_path_arrives_in_the_config"),
    235: ("an experiment with a blank in its name", "test_command_line.py::test_an_experiment_file_may_have_any_name"),
    241: ("a reward of 1e300", "test_rewards_checked.py::test_bad_scores_stop_the_run_in_one_sentence"),
    247: ("headers with blanks and capitals", READ.format("capitals")),
    249: ("a last line that is cut",
          "test_data_file.py::test_a_broken_row_is_rejected_with_what_was_expected_or_stops_the_run"),
    251: ("an index beside the files", "test_data_file.py::test_the_names_of_a_folders_files_decide_their_splits"),
}  # fmt: skip


def outcomes(tests: set[str]) -> dict[str, bool]:
    """Run tests; return whether each passed or was skipped, by `file.py::name[parameters]`."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        options = ["-q", "-n", "2", "--dist", "loadfile", f"--junit-xml={report.name}", "-p", "no:cacheprovider"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *sorted(tests)], check=False)
        cases = list(ElementTree.parse(report.name).iter("testcase"))
    files = {case: case.attrib["classname"].rpartition(".")[2] + ".py" for case in cases}
    failed = {case for case in cases if any(child.tag in {"failure", "error"} for child in case)}
    return {f"{file}::{case.attrib['name']}": case not in failed for case, file in files.items()}


def verdicts(passed: dict[str, bool]) -> Iterator[tuple[int, str, int, bool]]:
    """Yield each case with the number of its tests, and whether all of them passed."""
    for number, (text, *tests) in CASES.items():
        results = [ok for name, ok in passed.items() if any(covers(test, name) for test in tests)]
        yield number, text, len(results), bool(results) and all(results)


def covers(test: str, name: str) -> bool:
    """Return whether a test that was asked for is, or contains, the test of a name."""
    return name == test or name.startswith((f"{test}[", f"{test}::"))


def main() -> int:
    """Print the table; return 1 if a case failed or has no test."""
    rows = list(verdicts(outcomes({test for _, *tests in CASES.values() for test in tests})))
    print("| # | input | tests | outcome |\n|---|---|---|---|")
    for number, text, tests, passed in rows:
        print(f"| {number} | {text} | {tests} | {'right' if passed else '**wrong**'} |")
    return int(not all(passed for *_, passed in rows))


if __name__ == "__main__":
    sys.exit(main())
