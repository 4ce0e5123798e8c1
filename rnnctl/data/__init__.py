"""Real sequences that come with rnnctl, both in the public domain; each is a CSV file here.

sunspots   yearly mean sunspot number, 1700-2008. Source: NOAA National Geophysical Data Center.
macrodata  12 quarterly US macroeconomic series, 1959Q1-2009Q3. Source: Federal Reserve Bank of
           St. Louis.
"""

from importlib.resources import files

# Name -> the columns that tell the time and are no data.
TIME_COLUMNS = {"sunspots": ("YEAR",), "macrodata": ("year", "quarter")}


def bundled_csv(name: str) -> bytes:
    """The bytes of a bundled sequence's CSV file; ``name`` is a key of TIME_COLUMNS."""
    return files(__name__).joinpath(f"{name}.csv").read_bytes()
