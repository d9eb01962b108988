"""Makes the sample scenes with captions, and the folder with vocabulary and sizes of a small network.

python examples/vl_pretraining/make_scenes.py
"""

from pathlib import Path

from appzoo.vl_pretraining.scenes import write_scenes

if __name__ == "__main__":
    write_scenes(Path(__file__).parent, seed=0, numbers={"train": range(320), "dev": range(1000, 1040)})
