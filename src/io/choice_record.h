// Choices that were made by measuring, kept in a file from run to run. A measurement does not come out the same twice; what is
// read back does, and so the same command gives the same bytes. Text: a first line that says what the file is, then a line a
// choice: what was to be done, a tab, how.
#pragma once
#include <map>
#include <string>

#include "io/file.h"

namespace signround {

class ChoiceRecord {
 public:
  // Reads the file where there is one; lines that are no choices are passed over. No path: nothing is kept.
  explicit ChoiceRecord(Path path);

  // Whether a choice would be found by the next run: only then may one be made by measuring.
  bool keeps() const { return !path_.empty() && trouble_.empty(); }
  // Why choices cannot be kept, in a line; empty if they can, and if no path was given.
  const std::string& trouble() const { return trouble_; }

  // How `what` was done, null if nothing is known.
  const std::string* find(const std::string& what) const;
  // Keeps a choice, unless another process kept one meanwhile, and tells what is to count from now on: null if nothing can be
  // kept. Neither text has tabs or line breaks.
  const std::string* settle(const std::string& what, const std::string& how);

 private:
  void read();

  Path path_;
  std::string trouble_;
  std::map<std::string, std::string> choices_;
};

// Where plans of matrix products are kept: SIGNROUND_PLANS, if that is set (empty: nowhere), else signround/plans in
// XDG_CACHE_HOME or ~/.cache; an empty path if none of these is known.
Path plans_path();

}  // namespace signround
