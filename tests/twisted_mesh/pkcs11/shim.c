/* A PKCS #11 module that is another one, but for what a file tells it to do badly, a line each:

     C_Sign hold                    wait until the file says something else
     C_Sign wrong                   damage the signature
     C_Sign crash                   end the process
     C_Login return 0xA0            answer that, and do nothing
     C_GenerateKeyPair lost 0x30    do it, and answer that
     C_OpenSession after 2 0xB1     answer that after two calls, counted from C_Initialize
     C_Initialize unlocked          take no calls of several threads
     C_GetTokenInfo flags 0x20000   set these flags of the token, too

   The file is read at each call, so that a test changes its mind while the program runs. MESH_SHIM_MODULE names the
   other module, MESH_SHIM_ACTS the file, and MESH_SHIM_CALLS one to which each call is added as a line. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);
/* PKCS #11 version 2.40: a version and 68 functions, in this order since version 2.01. */
typedef struct {
    unsigned char major, minor;
    function calls[68];
} functions;

enum { INITIALIZE = 0, FINALIZE = 1, FUNCTION_LIST = 3, TOKEN_INFO = 6, OPEN = 12, LOGIN = 18, SIGN_INIT = 42,
       SIGN = 43, GENERATE = 59, CANT_LOCK = 10, CALLS = 68 };
typedef enum { NOTHING, WRONG, RETURN, LOST, UNLOCKED, FLAGS } act;

static functions real, ours;
static int counts[CALLS];

static void note(const char *name) {
    const char *path = getenv("MESH_SHIM_CALLS");
    char line[64];
    if (!path) return;
    int calls = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int length = snprintf(line, sizeof line, "%s\n", name);
    if (calls < 0) return;
    if (write(calls, line, length) != length) abort();
    close(calls);
}

/* What to do now, and a number for it. */
static act read_act(const char *name, int index, word *number) {
    const char *path = getenv("MESH_SHIM_ACTS");
    char line[128], function[64], verb[32], first[32], second[32];
    act found = NOTHING;
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NOTHING;
    while (found == NOTHING && fgets(line, sizeof line, file)) {
        first[0] = second[0] = 0;
        if (sscanf(line, "%63s %31s %31s %31s", function, verb, first, second) < 2 || strcmp(function, name)) continue;
        *number = strtoul(first, NULL, 0);
        if (!strcmp(verb, "hold")) {
            struct timespec moment = {0, 5000000};
            fclose(file);
            nanosleep(&moment, NULL);
            return read_act(name, index, number);
        }
        if (!strcmp(verb, "crash")) raise(SIGSEGV);
        if (!strcmp(verb, "wrong")) found = WRONG;
        if (!strcmp(verb, "return")) found = RETURN;
        if (!strcmp(verb, "lost")) found = LOST;
        if (!strcmp(verb, "unlocked")) found = UNLOCKED;
        if (!strcmp(verb, "flags")) found = FLAGS;
        if (!strcmp(verb, "after") && counts[index] > atoi(first)) {
            *number = strtoul(second, NULL, 0);
            found = RETURN;
        }
    }
    fclose(file);
    return found;
}

static act acts(const char *name, int index, word *number) {
    note(name);
    if (index == INITIALIZE) memset(counts, 0, sizeof counts);
    __atomic_add_fetch(&counts[index], 1, __ATOMIC_SEQ_CST);
    return read_act(name, index, number);
}

#define CALL(NAME, INDEX)                                                                                              \
    static word NAME(word a, word b, word c, word d, word e, word f, word g, word h) {                                 \
        word number = 0;                                                                                               \
        act asked = acts(#NAME, INDEX, &number);                                                                       \
        if (asked == RETURN) return number;                                                                            \
        if (asked == UNLOCKED && a) return CANT_LOCK;                                                                  \
        word answer = real.calls[INDEX](a, b, c, d, e, f, g, h);                                                       \
        return asked == LOST && !answer ? number : answer;                                                             \
    }

CALL(C_Initialize, INITIALIZE)
CALL(C_Finalize, FINALIZE)
CALL(C_OpenSession, OPEN)
CALL(C_Login, LOGIN)
CALL(C_SignInit, SIGN_INIT)
CALL(C_GenerateKeyPair, GENERATE)

static word C_GetTokenInfo(word slot, word info, word c, word d, word e, word f, word g, word h) {
    word number = 0;
    act asked = acts("C_GetTokenInfo", TOKEN_INFO, &number);
    if (asked == RETURN) return number;
    word answer = real.calls[TOKEN_INFO](slot, info, c, d, e, f, g, h);
    /* CK_TOKEN_INFO has flags after label, manufacturer, model and serial. */
    if (!answer && asked == FLAGS) *(word *)(info + 96) |= number;
    return answer;
}

static word C_Sign(word session, word data, word length, word signature, word size, word f, word g, word h) {
    word number = 0;
    act asked = NOTHING;
    /* The binding asks for the signature's length first. */
    if (signature) asked = acts("C_Sign", SIGN, &number);
    if (asked == RETURN) return number;
    word answer = real.calls[SIGN](session, data, length, signature, size, f, g, h);
    if (asked == WRONG && !answer) ((unsigned char *)signature)[7] ^= 1;
    return answer;
}

word C_GetFunctionList(functions **list);

word C_GetFunctionList(functions **list) {
    functions *found;
    word (*get)(functions **);
    if (!ours.calls[FUNCTION_LIST]) {
        void *module = dlopen(getenv("MESH_SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
        if (!module || !(get = (word (*)(functions **))dlsym(module, "C_GetFunctionList")) || get(&found))
            return 5; /* CKR_GENERAL_ERROR */
        real = ours = *found;
        ours.calls[INITIALIZE] = C_Initialize;
        ours.calls[FINALIZE] = C_Finalize;
        ours.calls[TOKEN_INFO] = C_GetTokenInfo;
        ours.calls[OPEN] = C_OpenSession;
        ours.calls[LOGIN] = C_Login;
        ours.calls[SIGN_INIT] = C_SignInit;
        ours.calls[SIGN] = C_Sign;
        ours.calls[GENERATE] = C_GenerateKeyPair;
        ours.calls[FUNCTION_LIST] = (function)C_GetFunctionList;
    }
    *list = &ours;
    return 0;
}
