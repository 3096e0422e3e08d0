"""Text from elsewhere, such as a file's name or a provider's message, made fit for a terminal."""

from dropreel.model.harmless import harmless, harmless_lines

__all__ = ["harmless", "harmless_lines"]
