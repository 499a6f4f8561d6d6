"""The 7B of the paper, under its name: an alias of gemma3_4b.

  python -m dreaming.main --config=configs/gemma7b.py --config.model.weights=PATH

There is no Gemma 3 of 7B parameters: the sizes are 270M, 1B, 4B, 12B and 27B. 4B is the largest
that fits where a 7B fitted, and the Gemma 3 report (arXiv 2503.19786) finds its instruction-tuned
form on a par with Gemma 2 27B. For the next size up take gemma3_12b. Hardware, times and weights:
see gemma3_4b.py.
"""

from configs import gemma3_4b


def get_config():
  return gemma3_4b.get_config()
