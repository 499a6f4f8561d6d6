"""Eyes and ears: a picture or a sound becomes a description, and its file is kept by digest."""
