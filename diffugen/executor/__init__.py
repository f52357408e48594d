"""Work on many images by several workers: processes of this machine, or actors on a Ray cluster."""
