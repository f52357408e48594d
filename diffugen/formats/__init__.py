"""Label formats, one file each: pure functions between text or JSON values and `Instances`."""
