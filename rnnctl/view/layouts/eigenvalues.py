"""How eigenvalues and singular values of a matrix are shown: two lists, for nothing links the i-th of each."""

from rnnctl.view.layouts.layout import Column, Table

_I = Column("i", "i")


def eigenvalue_tables(of: str, *before: Column, optional: bool = False) -> tuple[Table, Table]:
    """One table of either.

    Args:
        of: what the matrix is called in the titles.
        before: columns that name the matrix of a row, where there are several.
        optional: left out where there is no row at all, as where no matrix is square.
    """
    keys, several = (*before, _I), bool(before)
    each = "those of each" if several else "each"
    eigenvalues = Table(
        (*keys, Column("real", "real"), Column("imag", "imag"), Column("modulus", "modulus")),
        title=f"eigenvalues and singular values of {of} are two lists, {each} by falling size: the eigenvalues",
        where=lambda row: row["modulus"] is not None,
        optional=optional or several,
        keys=len(keys),
    )
    singular_values = Table(
        (*keys, Column("singular_value", "singular value")),
        title=f"the singular values of {of}",
        where=lambda row: row["singular_value"] is not None,
        optional=optional or several,
        keys=len(keys),
    )
    return eigenvalues, singular_values
