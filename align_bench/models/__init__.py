"""Models: found, loaded, adapted, and what they compute."""

import logging
import sys

# With the package `kernels`, bitsandbytes fetches native code from the hub and executes it as soon as it is imported.
# None stands for a package that cannot be imported.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it remarks that it could not
