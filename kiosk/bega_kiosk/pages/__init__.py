"""The pages: each turns what is known into the values that its template shows. Words come in, HTML comes out."""
