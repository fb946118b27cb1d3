# The project with all it needs, as an ordinary user; the default command is the quick start.
#   docker build -t dapo-trl . && docker run --rm -v "$PWD/runs:/home/trainer/runs" dapo-trl
# For GPUs, with the libraries of CUDA in PyTorch's own wheels, vLLM and bitsandbytes:
#   docker build -t dapo-trl:cuda --build-arg TORCH_INDEX=https://pypi.org/simple --build-arg EXTRAS=[vllm,quant] .
#   docker run --rm --gpus all --ipc=host -v "$PWD/runs:/home/trainer/runs" dapo-trl:cuda train --config textbook gsm8k lora-24gb ...
# Programs are judged with Landlock inside a container; bubblewrap (docs/sandbox.md) needs user namespaces, which
# docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined allows.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap libseccomp2 git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 trainer \
    && install -d -o trainer /home/trainer/runs

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY dapo_trl dapo_trl
COPY envs envs
COPY configs configs
COPY models models
# With vLLM, its own pins decide, not constraints.txt.
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch==2.13.0 \
    && if [ -z "${EXTRAS}" ]; then pip install --no-cache-dir -c constraints.txt .; \
       else pip install --no-cache-dir ".${EXTRAS}"; fi

USER trainer
WORKDIR /home/trainer
VOLUME /home/trainer/runs
ENV HF_HOME=/home/trainer/runs/huggingface
ENTRYPOINT ["dapo-trl"]
CMD ["train", "--config", "quickstart"]
