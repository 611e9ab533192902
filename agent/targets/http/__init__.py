"""HTTP towards the clouds: one blocking sender for bytes, one aiohttp session for everything else. Knows no cloud."""
