"""What stands in for CUDA where there is none; each piece is a seam marked ``cpu`` in :mod:`..upstream.seams`."""
