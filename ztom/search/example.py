"""The commented configuration that ``--example`` prints. It loads as it is (a test sees to
that).
"""

from __future__ import annotations

EXAMPLE = """\
# A search for the best scaling factors of a chain of checkpoints.
# Relative paths are taken from this file's folder. Everything but chain, stimuli and error has a
# default, which is the value shown, unless it says otherwise.

name: my-search                  # of the study; --resume goes on with the newest of this name

# The checkpoints, oldest first: folders, tars of them, or gs:// and s3:// addresses.
# A file with the same content can be named instead: "chain: chain.yaml".
chain:
  topology: sequence             # or siblings: runs that all started from the first one
  checkpoints:
    - checkpoints/base
    - checkpoints/iteration-1
    - checkpoints/iteration-2

# What the model is asked and what it should answer: JSONL with prompt (or messages) and expected.
stimuli: data/search.jsonl
expected_outputs: null           # a second file, one expected output a line, or CSV
labels: []                       # class labels, for error functions over classes
holdout: data/holdout.jsonl      # for the proof; null splits holdout_fraction off instead
holdout_expected_outputs: null
holdout_fraction: 0.25
max_search_stimuli: null         # search on this many only, chosen by the seed

# The error to make small: a name, or terms that are summed. Yours is package.module:function.
error:
  - function: cross_entropy
    weight: 1.0

# Data sets on which the model may not get worse by more than max_increase.
guardrails:
  - name: general
    stimuli: data/general.jsonl
    error: cross_entropy
    max_increase: 0.02
    holdout_fraction: 0.25       # or holdout: a file

# The search space: every factor within +-limit, or a lower_bound and an upper_bound for each.
scaling_factor_limit: 0.1
# lower_bound: [-0.1, -0.2]
# upper_bound: [0.1, 0.2]

# A factor for each step and group of tensors: kinds, {layers: 4}, {kinds: [attention, mlp]} or
# {patterns: {early: ["model.layers.0.*"]}}. Without groups a step has one factor.
factors:
  groups: null

inference_config:                # only used where text is generated
  max_new_tokens: 64
  temperature: 0.0               # greedy, and so deterministic
batch_size: null                 # stimuli per call of the engine; null hands over all at once
detailed_output: false           # true keeps the texts of every trial in output/outputs

sampler:
  name: gp                       # gp, gradient, optuna_gp, cobyqa, cobyla, cmaes, tpe or random
  startup: null                  # quasi-random points first; null takes what suits the sampler
  xtol_rel: 1.0e-4               # when cobyqa and cobyla have converged
  ftol_rel: 1.0e-4               # when cobyla and gradient have converged
  # mode: forward                # of gradient (exact derivatives): forward, or reverse

budget:
  evaluations: 50                # plus two of the trained model and three that confirm the answer
  tolerance: 0.01                # ends when less than this share of the gain is left; 0 never does
  seconds: null                  # a limit for all trials together

engine:
  name: vllm                     # or torch
  dtype: auto                    # the dtype that will be deployed
  tensor_parallel_size: 1
  replicas: 1                    # engines, one trial each at a time

seed: 0
generation_deadline_s: 600       # an engine without an answer by then is replaced
engine_start_deadline_s: 1800    # the same for loading the model
trial_retries: 1                 # for trials whose process died

# Suites (`ztom suite new`) that the best blend has to pass against the trained model: folders of
# suites. None by default.
suites: []

# The best blend is written to output/variant, and published if the proof says that it is better.
variant:
  form: dense                    # or adapter, for chains of adapters
  max_shard_gib: 2.0             # largest file of weights
  copy_to: null                  # also copy it to this gs:// or s3:// address
  keep_unproven: false           # keep what the proof does not let out as well, in unproven
insist: false                    # true publishes it whatever the proof says; that is recorded

overlap_scoring: false           # true: a GPU answers the next trial while the CPU scores one
# Where there are many stimuli they are answered in blocks, and a trial that is worse than the best
# by so many standard errors is stopped. For errors that are means over stimuli or tokens.
racing:
  from_stimuli: 256              # 0 never stops one
  standard_errors: 3.0

output: runs/my-search           # everything that the search writes
ledger: null                     # null puts ledger.db into the output folder

# Where the trials are shown as well: mlflow, wandb, tensorboard, optuna. None by default.
# trackers: [tensorboard, {name: mlflow, address: http://127.0.0.1:5000}]
trackers: []
"""


def example() -> str:
    """The commented configuration."""
    return EXAMPLE
