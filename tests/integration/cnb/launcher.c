/* A stand-in for the launcher: it starts a process of metadata.toml, as far as a test needs it.
 *
 * The process is the one that it is called by, or the one that its first argument names. Of TOML it
 * knows what the builder writes: one key a line, and strings without escapes.
 */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MANY 64

static char *words[MANY];
static int count;

static void add(char *line)
{
    for (char *word = strtok(strchr(line, '='), "\""); word; word = strtok(NULL, "\"")) {
        char *separator = strtok(NULL, "\"");
        if (separator && count < MANY - 1)
            words[count++] = strdup(separator);
    }
}

int main(int argc, char **argv)
{
    char *type = basename(argv[0]), name[256] = "", line[8192];
    const char *directory = getenv("CNB_LAYERS_DIR"), *app = getenv("CNB_APP_DIR");
    int given = 1;

    if (!strcmp(type, "launcher") && argc > 1)
        type = argv[given++];
    if (!directory || !app || chdir(directory) || !freopen("config/metadata.toml", "r", stdin)) {
        perror("metadata.toml");
        return 82;
    }
    for (int inside = 0; fgets(line, sizeof line, stdin);) {
        if (strchr(line, '[') == line)
            inside = 0;
        if (sscanf(line, " type = \"%255[^\"]", name) == 1)
            inside = !strcmp(name, type);
        else if (inside && (strstr(line, " command = ") || strstr(line, " args = ")))
            add(line);
        else if (inside && sscanf(line, " working-dir = \"%255[^\"]", name) == 1)
            app = strdup(name);
    }
    if (!count || chdir(app)) {
        fprintf(stderr, "no process %s\n", type);
        return 82;
    }
    while (given < argc && count < MANY - 1)
        words[count++] = argv[given++];
    execvp(words[0], words);
    perror(words[0]);
    return 82;
}
