"""One thread a test process: two of them share two cores, and thread pools would fight."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
