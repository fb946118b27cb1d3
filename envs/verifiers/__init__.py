"""Text in, `Judgement` out."""
