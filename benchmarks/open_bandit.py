"""Are the off-policy estimators right? `python -m benchmarks.open_bandit [--json PATH]`.

The sample of the Open Bandit Dataset: what Bernoulli Thompson sampling would have earned is estimated from the log of
the random policy, and held against what it did earn. The relative error is |estimate - truth| / truth; truth itself is
the mean of 10,000 rewards, of which some 40 are clicks, so it has an error of its own, which stands beside it. The
rewards that doubly robust estimates predict are shrunken means of the items, learnt on the other half of the log. For
IPS the literature has a relative error of about .08 on this sample.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from models.datasets.open_bandit import Campaign, fetch
from models.evaluation.ope import Log, cross_fitted, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description="off-policy estimates beside logged truth")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows: list[dict[str, float | str | None]] = []
    heads = ("campaign", "estimator", "estimate", "95 % interval", "truth", "± s.e.", "rel. error")
    print("{:8} {:14} {:>9} {:>18} {:>8} {:>8} {:>10}".format(*heads))
    for campaign in fetch():
        clicks = campaign.logs["bts"].clicks
        truth, doubt = float(clicks.mean()), float(clicks.std() / np.sqrt(len(clicks)))
        log = to_log(campaign)
        evaluation = evaluate(log)
        of_truth = f"{truth:8.5f} {doubt:8.5f}"
        for estimate in evaluation.estimates:
            name = estimate.estimator.upper() + ("" if estimate.clip is None else f", w ≤ {estimate.clip:g}")
            relative = abs(estimate.value - truth) / truth
            interval = f"[{estimate.low:.5f}, {estimate.high:.5f}]"
            print(f"{campaign.name:8} {name:14} {estimate.value:9.5f} {interval:>18} {of_truth} {relative:10.3f}")
            rows.append(
                {
                    "campaign": campaign.name,
                    "estimator": estimate.estimator,
                    "clip": estimate.clip,
                    "estimate": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "truth": truth,
                    "standard_error_of_truth": doubt,
                    "relative_error": relative,
                }
            )
        logged = evaluation.logged_value
        error = abs(logged - truth) / truth
        print(f"{campaign.name:8} {'random itself':14} {logged:9.5f} {'':18} {of_truth} {error:10.3f}")
        print(
            f"{campaign.name:8} {evaluation.n:,} places say as much as {evaluation.effective_samples:,.0f} of its own"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def to_log(campaign: Campaign) -> Log:
    """What the random policy logged, as Thompson sampling is to be evaluated on it."""
    logged = campaign.logs["random"]
    shares = campaign.thompson()  # (n_items, 3)
    groups = np.arange(len(logged.items))
    predictions = cross_fitted(logged.items, logged.clicks, groups, len(shares))  # (2, n_items)
    return Log(
        logged.clicks,
        logged.propensities,
        shares[logged.items, logged.positions],
        groups,
        predictions[groups % 2, logged.items],
        (predictions @ shares)[groups % 2, logged.positions],
    )


if __name__ == "__main__":
    main()
