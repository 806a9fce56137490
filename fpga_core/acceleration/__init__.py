"""Pictures in less time: which steps reuse the deep features of earlier ones, and what an exported model takes."""
