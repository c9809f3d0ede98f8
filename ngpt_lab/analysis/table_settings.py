"""Which settings the tables show, beside those that a sweep varies."""

_BACKBONE = "model.init_args.backbone"
_DIMS = f"{_BACKBONE}.init_args.dims"
_OPTIMIZER, _SCHEDULE = "model.init_args.optimizer", "model.init_args.schedule"
SIZES = {
    f"{_BACKBONE}.class_path": "model",
    f"{_DIMS}.n_layers": "layers",
    f"{_DIMS}.d_model": "d_model",
    f"{_DIMS}.n_heads": "heads",
    f"{_DIMS}.n_kv_heads": "key heads",
    f"{_DIMS}.d_head": "d_head",
    f"{_DIMS}.d_ff": "d_ff",
    f"{_DIMS}.vocab_size": "vocabulary",
    f"{_DIMS}.parametrisation": "parametrisation",
}
"""Settings of the paper's Table 2: dotted key -> heading."""
OPTIMISATION = {
    f"{_OPTIMIZER}.class_path": "optimizer",
    f"{_OPTIMIZER}.init_args.lr": "learning rate",
    f"{_OPTIMIZER}.init_args.betas": "betas",
    f"{_OPTIMIZER}.init_args.eps": "eps",
    f"{_OPTIMIZER}.init_args.weight_decay": "weight decay",
    f"{_SCHEDULE}.class_path": "schedule",
    f"{_SCHEDULE}.init_args.warmup": "warmup",
    f"{_SCHEDULE}.init_args.final": "final rate",
    "trainer.gradient_clip_val": "clip",
    "trainer.precision": "precision",
    "data.init_args.seq_len": "context",
    "data.init_args.batch_size": "batch",
    "trainer.accumulate_grad_batches": "accumulation",
}
"""Settings of the paper's Table 3: dotted key -> heading."""
TABLE_SETTINGS = (*SIZES, *OPTIMISATION)
