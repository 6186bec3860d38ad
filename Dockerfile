# The package from its source, for CPU (default) or CUDA. CPU_INDEX is PyTorch's index of CPU wheels (about 1 GB);
# without it the ordinary wheels are installed, which bring CUDA libraries (about 6.5 GB):
#   docker build -t unlearn --build-arg CPU_INDEX=... .
#   docker build -t unlearn:cuda --build-arg TORCH=cuda .
#   docker run --rm -v "$PWD/outputs:/home/user/outputs" unlearn unlearn-run method=rem corruption=poison
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
WORKDIR /source
RUN pip install --no-cache-dir build
COPY . .
RUN python -m build --wheel --outdir /dist

FROM python:${PYTHON}-slim
ARG TORCH=cpu
# The index of torch's CPU builds; CUDA builds are the ordinary wheels, which bring their libraries.
ARG CPU_INDEX
COPY --from=build /dist /dist
RUN if [ "$TORCH" = cpu ] && [ -n "$CPU_INDEX" ]; then \
      pip install --no-cache-dir --index-url "$CPU_INDEX" torch torchvision; fi \
    && pip install --no-cache-dir "$(echo /dist/*.whl)[timm,safetensors,hub]" && rm -r /dist
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user
ENV UNLEARN_HOME=/home/user/outputs UNLEARN_DATA=/home/user/data
CMD ["unlearn-run", "--help"]
