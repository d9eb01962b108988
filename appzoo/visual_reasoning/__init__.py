"""Is a sentence true of one image, or of two?"""
