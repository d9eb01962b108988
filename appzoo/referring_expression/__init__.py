"""Which region of an image does an expression mean?"""
