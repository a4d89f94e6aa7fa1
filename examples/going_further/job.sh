#!/bin/bash
# A run as a job on the hub: job.sh RUN.json, with the lab at /lab and a bucket at /out.
# Weights are written beside each other and moved into place, which a mounted bucket may not do,
# so the run lives on the job's own disk and is copied when it has ended, however that was.
set -u
cp -r /lab /tmp/lab && cd /tmp/lab || exit 1
pip install --quiet -r requirements.txt || exit 1
gpus=$(python -c "import torch; print(max(1, torch.cuda.device_count()))")
accelerate launch --num_processes "$gpus" --num_machines 1 --mixed_precision no \
  --dynamo_backend no -m sft_core train --config "$1" --runs /tmp/runs
ended=$?
cp -r /tmp/runs/. /out/
exit $ended
