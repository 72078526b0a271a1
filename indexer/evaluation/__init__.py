"""How well an index recognises labelled images, and fitting its calibration."""
