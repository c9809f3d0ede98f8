"""Where text comes from: each source gives the same documents, whatever form they are kept in."""
