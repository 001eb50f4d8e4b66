"""The errors a user can cause: each says which file or field, what was expected and what was found."""


class IsthmusError(ValueError):
    """A mistake in what was given to Isthmus; its text is meant for the person at the keyboard."""


class DataError(IsthmusError):
    """A file or data set cannot be used as asked."""


class RecipeError(IsthmusError):
    """A recipe, or an override of one of its fields, is not valid."""


class RunError(IsthmusError):
    """A run folder is missing something, or would be overwritten."""
