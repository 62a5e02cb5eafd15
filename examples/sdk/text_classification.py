"""Teach a tiny BERT, begun at random, which of two kinds of sentences it reads, with HF's Trainer.

    python text_classification.py

The sentences are made here; nothing is downloaded. One callback reports, uploads and saves.
"""

import argparse
import os
import random
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from curitorch.external.sdk import TransformersCallback

WORDS = {
    0: ["bad", "dull", "slow", "poor", "weak", "broken", "late", "noisy"],
    1: ["good", "bright", "fast", "rich", "strong", "whole", "early", "calm"],
    None: ["the", "a", "this", "film", "book", "day", "house", "was", "is", "seems", "and", "but"],
}
ALL_WORDS = sorted(word for words in WORDS.values() for word in words)
VOCABULARY = {word: i + 2 for i, word in enumerate(ALL_WORDS)}  # 0 pads, 1 begins


def sentences(number, seed):
    """Return examples as the Trainer takes them: ids, mask and label."""
    draw = random.Random(seed)
    examples = []
    for _ in range(number):
        label = draw.randrange(2)
        words = [draw.choice(WORDS[None]) for _ in range(9)]
        for place in draw.sample(range(9), 3):
            words[place] = draw.choice(WORDS[label])
        ids = torch.tensor([1, *(VOCABULARY[word] for word in words)])
        examples.append(
            {"input_ids": ids, "attention_mask": torch.ones(10).long(), "labels": label}
        )
    return examples


def accuracy(prediction):
    """Return the share of sentences whose kind is told right."""
    return {"acc": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main():
    """Train, from the last checkpoint in the directory if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save_steps", type=int, default=20)
    parser.add_argument("--save_dir", default=os.environ.get("CKPT_DIR", "saves"))
    args = parser.parse_args()

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY) + 2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    trainer = Trainer(
        BertForSequenceClassification(config),
        TrainingArguments(
            args.save_dir,
            max_steps=args.steps,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            logging_steps=5,
            eval_strategy="steps",
            eval_steps=20,
            save_steps=args.save_steps,
            save_total_limit=2,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=sentences(1024, seed=1),
        eval_dataset=sentences(128, seed=2),
        compute_metrics=accuracy,
        callbacks=[TransformersCallback()],
    )
    last = get_last_checkpoint(args.save_dir) if Path(args.save_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    print(f"accuracy {trainer.evaluate()['eval_acc']:.3f}")


if __name__ == "__main__":
    main()
