//! What the schema and a parsed configuration look like on paper.
