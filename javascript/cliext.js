// The page's script: opening the tab from elsewhere, Ctrl+Enter, and a look at the checkpoint.

function cliext_element(name) {
    return document.getElementById(`cliext-${name}`);
}

function cliext_is_shown(element) {
    return Boolean(element && element.offsetParent);
}

// Opens the Interrogator tab of a WebUI; called after a picture was sent there.
function cliext_open() {
    const content = document.getElementById("tab_cliext");
    if (content) {
        const tabs = content.parentElement;
        const contents = Array.from(tabs.children).filter((one) => one.classList.contains("tabitem"));
        const buttons = Array.from(tabs.querySelector(":scope > .tab-nav, :scope > div").querySelectorAll("button"));
        const button = document.getElementById("tab_cliext-button") || buttons[contents.indexOf(content)];
        button?.click();
    }
    cliext_element("tab-prompt-button")?.click();
    return Array.from(arguments);
}

// Ctrl+Enter generates, or analyzes, whichever tab is shown.
document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) {
        return;
    }
    for (const name of ["generate", "analyze"]) {
        const button = cliext_element(name);
        if (cliext_is_shown(button)) {
            // A box that is being written in hands over its text when it is left.
            document.activeElement?.blur?.();
            window.setTimeout(() => button.click(), 50);
            event.preventDefault();
            event.stopPropagation();
            return;
        }
    }
}, true);

// Whenever the tab comes into view, the target generator follows the loaded checkpoint.
(function () {
    const seen = new IntersectionObserver((entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
            cliext_element("from-checkpoint")?.click();
        }
    });
    const waiting = window.setInterval(() => {
        const generate = cliext_element("generate");
        if (generate) {
            window.clearInterval(waiting);
            seen.observe(generate);
        }
    }, 500);
})();
