"""Choose tokens by their scores: probabilities at a temperature, the nucleus, and the token of a random number."""

import torch

LIKELIEST = 1e-6  # the temperature that stands for 0, with which the likeliest token is picked
BLOCK = 256  # tokens whose probabilities are summed before one is looked for among them


def shares_of(scores: torch.Tensor, masked: list[int], temperature: float | torch.Tensor) -> torch.Tensor:
    """Return what tokens' probabilities are proportional to, by their scores [batch, vocabulary], which it may change.

    The temperature is one for all rows, or one each, [batch, 1].
    """
    scores = scores.float()
    scores[:, masked] = -torch.inf
    scores -= scores.amax(dim=-1, keepdim=True)
    scores /= temperature
    return scores.exp_()


def invert(shares: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the first token whose cumulative probability exceeds the number; shares [batch, vocabulary].

    The token is looked for among the sums of `BLOCK` tokens, then inside one block. Sums are computed in float64.
    """
    size = shares.shape[1]
    whole = size // BLOCK
    blocks = shares[:, : whole * BLOCK].reshape(len(shares), whole, BLOCK).sum(-1, dtype=torch.float64)
    rest = shares[:, whole * BLOCK :].sum(-1, keepdim=True, dtype=torch.float64)
    ends = torch.cat([torch.zeros_like(rest), blocks, rest], dim=1).cumsum(-1)
    wanted = uniforms[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends[:, 1:].contiguous(), wanted, right=True).clamp(max=whole)
    places = block * BLOCK + torch.arange(BLOCK, device=shares.device)
    inside = shares.gather(1, places.clamp(max=size - 1)).masked_fill(places >= size, 0)
    cumulative = inside.cumsum(-1, dtype=torch.float64) + ends.gather(1, block)
    place = torch.searchsorted(cumulative, wanted, right=True)
    if (place == BLOCK).any():  # by rounding: the last token that has a probability, in its block or in the row
        last = block * BLOCK + last_positive(inside)
        last = torch.where(inside.any(-1, keepdim=True), last, last_positive(shares))
        return torch.where(place == BLOCK, last, block * BLOCK + place)[:, 0]
    return (block * BLOCK + place)[:, 0]


def last_positive(shares: torch.Tensor) -> torch.Tensor:
    """Return the place of the last positive entry of each row, [batch, 1]."""
    return shares.shape[-1] - 1 - shares.flip(-1).gt(0).long().argmax(dim=-1, keepdim=True)


def nucleus(shares: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens that reach `top_p` together (Holtzman et al. 2020); 1 keeps all."""
    if top_p >= 1:
        return shares
    ranked, order = shares.sort(dim=-1, descending=True)
    cumulative = ranked.cumsum(dim=-1, dtype=torch.float64)
    kept = cumulative - ranked < top_p * cumulative[:, -1:]
    return torch.zeros_like(shares).scatter(-1, order, ranked * kept)
