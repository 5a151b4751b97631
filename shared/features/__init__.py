"""Features: declared once, folded by one fold, evaluated at a given instant, online and offline alike."""
