// A tool that is counted from outside: runs the real one, and writes its start and its end, each with
// the time in nanoseconds and the jobs that it is worth (a linker's --threads=; 99 where it says
// nothing), in one write to the file that $METER_LOG names.
//
//   clang -DNAME='"clang"' -DREAL='"/usr/lib/llvm-22/bin/clang"' -O1 meter.c -o clang
//
// With -DBECOME it becomes the real tool after its start, and tells its parent in the place of jobs.
// With -DCOUNT_THREADS and -shared it is a library for $METER_PRELOAD, which the real tool gets as its
// LD_PRELOAD: it writes down each thread that is made.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *what, const char *name, pid_t pid, int jobs) {
  const char *log = getenv("METER_LOG");
  struct timespec now;
  char line[128];
  int fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
  if (fd < 0)
    return;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int length = snprintf(line, sizeof line, "%s %s %d %lld %d\n", what, name, (int)pid,
                        now.tv_sec * 1000000000LL + now.tv_nsec, jobs);
  if (write(fd, line, length) != length)
    abort();
  close(fd);
}

#ifdef COUNT_THREADS
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
  tell("thread", "-", getpid(), 0);
  return real(thread, attributes, start, argument);
}
#else
int main(int argc, char **argv) {
  const char *name = NAME;
  const char *preload = getenv("METER_PRELOAD");
  int status;
  int jobs = strcmp(name, "ld.lld") ? 1 : 99;
  for (int at = 1; at < argc; at++) {
    if (!strncmp(argv[at], "-fthinlto-index=", 16))
      name = "back-end";
    else if (!strncmp(argv[at], "--threads=", 10))
      jobs = atoi(argv[at] + 10);
  }
#ifdef BECOME
  tell("start", name, getpid(), (int)getppid());
  argv[0] = REAL;
  execv(REAL, argv);
  return 127;
#endif
  pid_t meter = getpid();
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != meter)
      _exit(127);
    if (preload)
      setenv("LD_PRELOAD", preload, 1);
    tell("start", name, getpid(), jobs);
    argv[0] = REAL;
    execv(REAL, argv);
    _exit(127);
  }
  waitpid(child, &status, 0);
  tell("end", name, child, jobs);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif
