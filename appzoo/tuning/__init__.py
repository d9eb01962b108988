"""Search over settings: trials are ordinary trainings in processes of their own, a study of Optuna chooses them."""
