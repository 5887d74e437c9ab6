"""Run the real job with a recording learner: ``python run_recorded.py <options of cli.train>``."""

from __future__ import annotations

import sys
from pathlib import Path

import openrlhf_maxk
from openrlhf_maxk.cli.train import parse, start_ray


def main() -> None:
    _, args = parse(sys.argv[1:])
    openrlhf_maxk.install()
    start_ray(args, verbose=True)
    sys.path.insert(0, str(Path(__file__).parent))
    import ray
    import recording
    from openrlhf.cli import train_ppo_ray

    ray.cloudpickle.register_pickle_by_value(recording)
    train_ppo_ray.PolicyModelActor = ray.remote(num_gpus=1)(recording.RecordingPolicy)
    args.actor.eps_clip_low_high = (args.actor.eps_clip, args.actor.eps_clip)
    args.reward.remote_url = [args.reward.remote_url]
    train_ppo_ray.train(args)
    ray.shutdown()


if __name__ == "__main__":
    main()
