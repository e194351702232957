"""What pages of one file are made of: layout, style sheet, charts as SVG, readable numbers."""
