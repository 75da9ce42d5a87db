"""The asset portal: a front-end built by Vite into `static/`, which the server sends as files."""
