"""The one LightningModule, its trainer, folds, optimiser and callbacks."""
