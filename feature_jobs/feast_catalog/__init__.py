"""The feature catalogue: Feast's registry generated from the declarations, over our own state and our own log.

Nothing here is on the request path. Feast 0.67 sends no usage data; versions that do obey FEAST_USAGE.
"""

import os

os.environ.setdefault("FEAST_USAGE", "False")
