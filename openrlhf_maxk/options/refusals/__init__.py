"""What of OpenRLHF's options is refused, as data: which option, when, why, and what to do instead."""
