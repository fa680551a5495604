"""Settings for the whole suite."""

import os
from contextlib import suppress
from functools import cache

# Nothing in the suite may wait for a network; read when Hugging Face's packages are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# What verification finds must be found anew, but for the tests of how it is remembered.
os.environ["NEUROGLOT_CACHE"] = ""
# Some tests look at progress bars; read when tqdm is imported.
os.environ.pop("TQDM_DISABLE", None)
# The suite runs in as many processes as there are cores; more threads would only wait.
os.environ["NUMBA_NUM_THREADS"] = "1"

import torch
import vl_convert as vlc

with suppress(ImportError):  # on machines where less is installed its tests are skipped
    from hypothesis import settings

    settings.register_profile("no deadline", deadline=None)
    settings.load_profile("no deadline")

torch.set_num_threads(1)

# Always the same megabyte, put together anew for every page.
vlc.javascript_bundle = cache(vlc.javascript_bundle)
