# Bunny with its page and server:
#   docker build -t bunny .                                         CUDA: PyTorch as the package index has it for Linux
#   docker build -t bunny --build-arg TORCH_INDEX=URL .             CPU: URL of PyTorch's index of CPU wheels
#   docker run --gpus all -v "$PWD":/data -p 8000:8000 -e BUNNY_API_KEY=... bunny serve /data/model --host 0.0.0.0
# The container's address is not the loopback one, so the server asks for a key. Any other command works too:
#   docker run -v "$PWD":/data bunny curate run /data/pictures --output /data/runs/pictures
FROM python:3.11-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/bunny

# Libraries first: they change less often than the code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY src ./src
COPY recipes ./recipes
RUN pip install -c constraints.txt ".[serve,eval,endpoint,gguf,tensorboard]"

RUN useradd --create-home bunny
USER bunny
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["bunny"]
CMD ["--help"]
