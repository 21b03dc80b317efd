# lord-fast with CUDA: docker build -t lord-fast . && docker run --gpus all -v "$PWD:/work" lord-fast
# run photos. The development image holds the compiler that Triton and the native kernels need.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/lord-fast
ENV PATH=/opt/lord-fast/bin:$PATH

COPY . /src
RUN pip install --no-cache-dir "/src[dali,triton,tensorboard]" && rm -rf /src

WORKDIR /work
ENTRYPOINT ["lord-fast"]
CMD ["--help"]
