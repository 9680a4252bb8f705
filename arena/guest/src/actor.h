/* What behaviours need: their settings, memory, randomness, time. */
#ifndef ACTOR_H
#define ACTOR_H
#include <stddef.h>
#include <stdint.h>
#include "shared.h"

extern struct shared *shared;

/* Settings of this actor's script, "behaviour key=value key=value ...". */
long number(const char *key, long otherwise);
const char *text(const char *key, const char *otherwise);

uint64_t random_word(void);
void reseed(void);
void pause_ms(long ms);
void wait_for_go(void);
void say_settled(void);

long meminfo_kib(const char *key);
/* What a page holds: one word, some words, or so many that no compressor gains on them. */
enum { TRACE, SPARSE, DENSE };
/* Fresh anonymous memory with contents in every page; NULL when refused. */
char *take(size_t bytes, int kind);
void fill(char *memory, size_t bytes, int kind);
/* Take memory until MemAvailable is down to this many MiB. */
void take_until_available(long mib);
void give_back(char *memory, size_t bytes);



typedef void behaviour(void);
behaviour app, beat, tree, pool, leaf, work, compile;
behaviour leak, storm, thrash, cache, fill_files, burst, blocked;
#endif
