"""Models: found, loaded, adapted, and what they compute."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it remarks on kernels that nobody asked it for
