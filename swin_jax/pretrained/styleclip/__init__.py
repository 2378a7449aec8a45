"""Files that StyleCLIP's code reads and writes beside networks:
statistics of style space, directions and latents.
"""
