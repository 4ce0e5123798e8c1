"""What each kind of result looks like as tables and text: data, with a few sentences.

Here: which fields, under which titles, and what is said of each scalar. Not here: how a table is drawn
(``view.tables``).

To read: ``layout`` (Column, Table, Layout, and the small layouts), ``table`` (schema -> layout), then the one that you
want to change; each is named after the commands whose results it shows.
"""
