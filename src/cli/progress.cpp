#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cli/console.h"

namespace signround {
namespace {

constexpr int kDefaultWidth = 80, kBarCells = 20;

int terminal_width() {
  winsize size = {};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultWidth;
}

void write_stderr(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

}  // namespace

Progress::Style Progress::style_of(bool quiet) {
  if (quiet) return Style::silent;
  const char* terminal = std::getenv("TERM");
  return isatty(STDERR_FILENO) && terminal && std::string_view(terminal) != "dumb" ? Style::bar : Style::lines;
}

void Progress::show(double fraction, const std::string& text) {
  const Clock::time_point now = Clock::now();
  if (style_ != Style::bar || now - shown_ < std::chrono::milliseconds(100)) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  write_stderr("\r\x1b[K" + bar_text(fraction, seconds, text, terminal_width() - 1));
  visible_ = true;
}

void Progress::line(const std::string& text) {
  if (style_ == Style::silent) return;
  clear();
  note(text);
}

void Progress::clear() {
  if (visible_) write_stderr("\r\x1b[K");
  visible_ = false;
}

std::string bar_text(double fraction, double seconds, const std::string& text, int width) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  const size_t full = static_cast<size_t>(fraction * kBarCells);
  const std::string percent = std::to_string(static_cast<int>(fraction * 100)) + "%";
  std::string bar = "[" + std::string(full, '=') + std::string(kBarCells - full, ' ') + "] ";
  bar += std::string(4 - percent.size(), ' ') + percent;
  if (fraction > 0) bar += "  ETA " + human_seconds(seconds / fraction * (1 - fraction));
  bar += "  " + text;
  return bar.substr(0, static_cast<size_t>(std::max(width, 0)));
}

std::string rate_text(double tflops) {
  return tflops < 1 ? fixed(tflops * 1000, 0) + " GFLOP/s" : fixed(tflops, 1) + " TFLOP/s";
}

std::string block_line(const BlockReport& b, double peak_tflops) {
  std::string line = b.name;
  if (b.tflops > 0) line += cat("  loss ", general(b.first_loss, 3), " -> ", general(b.best_loss, 3), " at ", b.best_step);
  line += "  " + human_seconds(b.seconds);
  if (b.tflops > 0) line += "  " + rate_text(b.tflops);
  if (b.tflops > 0 && peak_tflops > 0) line += cat(" (", fixed(100 * b.tflops / peak_tflops, 0), " % of peak)");
  if (b.peak_bytes > 0) line += "  peak " + human_bytes(b.peak_bytes);
  return line;
}

}  // namespace signround
