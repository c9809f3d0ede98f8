"""What tasks are measured by."""

# Every key that a row of a task may have beside those of training; {split} is val or test.
TASK_METRICS = {
    "{split}/loss": "mean loss, in nats where it is a cross-entropy",
    "{split}/accuracy": "share of labels that are right: of sequences, of tokens, or of every yes or no",
    "{split}/f1": "F1, the mean over classes; of answers, that of their words (SQuAD's)",
    "{split}/mcc": "Matthews correlation coefficient",
    "{split}/exact_match": "share of sequences with all labels right, or of answers that are word for word a true one",
    "{split}/mse": "mean squared error",
    "{split}/pearson": "Pearson correlation of predictions and labels, the mean over labels",
    "{split}/spearman": "Spearman correlation of predictions and labels, the mean over labels",
    "{split}/span_precision": "share of the entities found that are right in both ends and in type (CoNLL's)",
    "{split}/span_recall": "share of the true entities that are found so",
    "{split}/span_f1": "the harmonic mean of both",
}
